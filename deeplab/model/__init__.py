"""The network: layers, variable store, ASPP, decoder, logits and predictions."""
