"""Everything that touches transformers; it is imported only here."""

WHISPER = "whisper_hf"  # its name among ESPnet's encoders and decoders
