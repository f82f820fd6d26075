"""Data sets, from a photo and its mask to TFRecord shards and back: fetching, checking, converting, packing."""
