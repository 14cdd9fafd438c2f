"""The types that cross borders between the rooms, their form in JSON, the split explain | score."""
