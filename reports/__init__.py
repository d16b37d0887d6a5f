"""Reports on finished runs: JSON documents, terminal tables, HTML pages and exports."""
