"""What plugins see. Everything public is importable from ``rtpipe`` itself."""
