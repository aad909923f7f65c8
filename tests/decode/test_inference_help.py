"""ESPnet's help texts, of which some hold a bare per cent sign."""

import argparse

from espnet_prune.decode.verbs import printable_help


def test_a_per_cent_sign_that_argparse_cannot_expand_is_printed():
    parser = argparse.ArgumentParser()
    parser.add_argument("--window", default=3, help="costs 0.1% CER")
    parser.add_argument("--beam", default=5, help="width (default: %(default)s), 5%% more")
    parser.add_argument("--silent")
    text = printable_help(parser).format_help()
    assert "costs 0.1% CER" in text and "width (default: 5), 5% more" in text
