"""What the notebooks show: figures, films to play with, exercises. Nothing else imports it."""
