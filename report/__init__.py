"""The report: committed results in, a paper-style PDF, its figures and a page to look around in out."""
