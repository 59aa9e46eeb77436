_base_ = "focalmix_luna16_100.py"

model = dict(num_guesses=1)
