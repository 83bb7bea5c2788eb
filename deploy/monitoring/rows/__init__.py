"""The rows of the dashboard: a question each."""
