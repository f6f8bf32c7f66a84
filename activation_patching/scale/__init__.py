"""What the states tell of a label, made larger or smaller: can the model be made to listen, and at what price?"""
