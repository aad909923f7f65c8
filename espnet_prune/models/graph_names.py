"""Names in an exported folder; imports nothing, since ONNX Runtime alone reads such a folder."""

GRAPH, DECODER = "model.onnx", "decoder.onnx"
SPEECH = "ctc_speech"  # a kind: a whole model, from samples to CTC log-probabilities
WHISPER = "whisper_speech"  # a kind: from samples to hidden states, and a decoder's step
SPECIAL = "special"  # in a description: ids of tokens that aren't said, besides blank and end
# in a model's configuration, for decoding: seconds of the longest utterance that it was trained on
TRAINED_SECONDS = "longest_training_seconds"
