"""Controls that every result is printed beside, and the evaluation that prints them."""
