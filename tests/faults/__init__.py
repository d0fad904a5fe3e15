"""What is left after something was killed, was full, or came twice."""
