"""What quality.py measures: the jobs, the data of each, Tunesmith's side and that of its peers, and how both are scored."""
