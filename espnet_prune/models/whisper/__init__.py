"""Whisper of transformers, alone and as encoder and decoder of an ESPnet model."""

WHISPER = "whisper_hf"  # its name among ESPnet's encoders and decoders
