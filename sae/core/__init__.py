"""What everything else uses: errors, files, progress, signals, processes."""
