"""What a step would say as a command by itself, in words of `interp run`."""

from __future__ import annotations

import re
import warnings

import pytest

from interp.pipeline.workflow.wording import in_words_of_run, say_for_run
from sae.core.errors import FAILURES, USAGE, Notice, UserError
from tests.support.commands import interp

TABLE = "a table of --config FILE)"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "step", "said"),
    [
        ("a larger --holdout", "eval", f"a larger [run.train] holdout ([run.train]: {TABLE}"),
        ("; add --no-zeroshot", "eval", f"; add [run.eval] zeroshot = false ([run.eval]: {TABLE}"),
        ("--no-groups, --groups", "collect", "[run.collect] no_groups, [run.collect] groups"),
        ("--calibrate is", "eval", "[run.eval] calibrate is"),
        ("--calibrate is", "train", "[run.train] calibrate is"),
        ("--clip NAME --vocabulary general", "explain", "--clip NAME [run.explain] vocabulary gen"),
        ("--vocabulary x is no file", "score", "[run.score] vocabulary x is no file"),
        ("add --overwrite, --from", "collect", "add --from collect, --from"),
        ("run `sae embed` with --dtype float32", "embed", "run `sae embed` with --dtype float32"),
        ("run `sae embed`; --dtype float32", "embed", "run `sae embed`; [run.embed] dtype float32"),
        ("a.toml: [run.eval] does not fit: --k", "", "a.toml: [run.eval] does not fit: k"),
        ("[run.eval] does not fit: --model, --k 3", "", "[run.eval] does not fit: --model, k 3"),
        ("--n-latents, --judge, --k, --out", "train", "--n-latents, --judge, --k, --out"),
        ("start the server with --mmproj", "explain", "start the server with --mmproj"),
    ],
)
def test_options_that_a_run_lacks_are_said_as_keys_of_a_table(text, step, said) -> None:
    assert say_for_run(text, step).startswith(said)
    assert say_for_run(say_for_run(text, step), step) == say_for_run(text, step)


@pytest.mark.unit
def test_notices_and_errors_inside_are_said_so_and_those_outside_are_not() -> None:
    def embed() -> None:
        with in_words_of_run("embed"):
            warnings.warn("fewer --workers", Notice, stacklevel=1)
            warnings.warn("fewer --workers", UserWarning, stacklevel=1)
            raise UserError("--dtype float16 cannot", FAILURES)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with pytest.raises(UserError, match=r"^\[run.embed\] dtype") as raised:
            embed()
        warnings.warn("fewer --workers", Notice, stacklevel=1)
    assert raised.value.exit_code == FAILURES
    said = [str(warning.message).partition(" (")[0] for warning in found]
    assert said == ["fewer [run.embed] workers", "fewer --workers", "fewer --workers"]


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("[run.embed]\nworkers = -2", r"\[run.embed\] has 'workers' -2: it must be at least -1"),
        ("[run.score]\nalone_share = 3.0", "has 'alone_share' 3.0: it must be at most 1"),
        ("[run.explain]\ntimeout = 0", "has 'timeout' 0: it must be at least 0.1"),
        ("[run.eval]\nn_zeroshot = 0", "has 'n_zeroshot' 0: it must be at least 1"),
        ("[run.eval]\ntemplates = 5", "does not fit: templates is 5; it must be 1 or 80"),
        ('[run.eval]\nk = "a"', "does not fit: k 'a' is not a list of whole numbers"),
        ('[run.eval]\ntemplate = ["no"]', "the template 'no' must hold {} once"),
        ('[run.eval]\nagainst = "nowhere"', "nowhere does not exist"),
        ("[run.eval]\ncalibrate = true", r"\[run.eval\] calibrate is for a BatchTopK"),
        ('[run.score]\nkind = "nope"', "does not fit: kind 'nope' is not known; one of detect"),
        ('[run.score]\nsecond_judge = "local"', r"second_judge local is the judge itself"),
        ('[run.collect]\ngroups = "nowhere.csv"', "groups nowhere.csv: there is no such file"),
        (
            '[run.embed]\nlayer = "2"\ntokens = "patch"\n[run.collect]\npool = "cls"',
            r"\[run.collect\] pool cls: .* holds patches alone",
        ),
        ('[run.explain]\nvocabulary = "nope"', r"\[run.explain\] vocabulary nope is no file"),
    ],
)
def test_what_a_later_step_would_refuse_is_told_before_any_work(
    walk, tmp_path, capsys, table, error
) -> None:
    file, out = tmp_path / "run.toml", tmp_path / "run"
    file.write_text(f'[run]\nclip = "tiny"\n{table}\n')
    words = ("--domain", f"sketch={walk.world / 'sketch'}", "--model", "local", "--config", file)
    for more in ((), ("--estimate",)):
        assert interp("run", *words, *more, "--out", out) == USAGE
        assert re.search(error, capsys.readouterr().err)
    assert not out.exists()
