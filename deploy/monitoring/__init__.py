"""What monitoring needs beside the server, as code: the metrics' documentation, the dashboard and the alerts."""
