"""The process in the cabinet: cameras in, verdicts out, for months."""
