"""Where images lie: folders, tar archives, parquet tables, lists -> candidates, and their bytes."""
