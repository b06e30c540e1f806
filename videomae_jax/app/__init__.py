"""A page for the browser that shows trained models at work on videos."""
