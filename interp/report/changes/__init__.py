"""Two runs, or two domains of one -> what differs between them: tables, figure, gallery."""
