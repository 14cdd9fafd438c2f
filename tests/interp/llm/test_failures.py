from interp.llm.failures import Reason, commonest, scrub


def test_words_that_differ_in_numbers_only_are_one_reason_and_the_commonest_come_first():
    failures = [("bad_request", f"400: {n} tokens > 4096 (req-{n}ab)") for n in (5000, 6000, 70000)]
    failures += [("refused", "I will not.")] * 2 + [("truncated", "cut"), ("empty", "nothing")]
    assert commonest(failures)[:2] == [
        Reason("bad_request", "400: 5000 tokens > 4096 (req-5000ab)", 3),
        Reason("refused", "I will not.", 2),
    ]
    assert len(commonest(failures)) == 3


def test_a_remedy_ends_with_how_to_ask_again():
    assert Reason("truncated", "", 1).remedy.endswith("--retry-failed asks again")
    assert "--max-tokens" in Reason("truncated", "", 1).remedy
    assert Reason("timeout", "", 1).remedy.endswith("the same command asks again")
    assert Reason("unheard_of", "", 1).remedy == "--retry-failed asks again"


def test_keys_logins_and_files_are_not_kept():
    said = "Bearer abcdefghijkl sk-or-v1-0123456789 http://me:pw@host/x " + "QUJD" * 60 + "\x1b\n."
    kept = scrub(said)
    assert kept == "[key] [key] http://host/x [...] ."
    assert len(scrub("word " * 400)) <= 500
