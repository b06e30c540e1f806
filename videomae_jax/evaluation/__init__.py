"""How good a model is, measured on clips it was not trained on."""
