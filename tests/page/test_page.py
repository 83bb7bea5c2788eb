"""The page in a real browser, beside a real server."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from playwright.sync_api import Browser, expect

import birnn
from birnn_bundle.vocabulary import VocabularyTokenizer
from tests.certificates import Authority
from tests.e2e.molecules import molecules
from tests.e2e.server_process import MODELS, ServerProcess, running, until
from tests.e2e.test_tokens import change
from tests.export.checkpoints.test_features import exported
from tests.page.browser import NARROW, Visit, needs_chromium
from tests.page.conftest import Open

pytestmark = needs_chromium
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
# What Chromium itself says of a reply that is an error.
REFUSED = "error: Failed to load resource: the server responded with a status of 401"
LACKING = "error: Failed to load resource: the server responded with a status of 403"
AWAY = "error: Failed to load resource: net::ERR_INTERNET_DISCONNECTED"


@pytest.fixture(scope="module", params=["0", "2"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with running(MODELS, "--http-port", "0", "--frontends", request.param) as server:
        yield server


@contextmanager
def load(server: ServerProcess, encoder: str) -> Iterator[None]:
    """Callers who call as fast as they are answered."""
    stop = threading.Event()

    def call(number: int) -> None:
        strings = molecules(40)
        with birnn.Client(server.address) as client:
            while not stop.is_set():
                client.encode(strings[number : number + 8], encoder=encoder)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(2)]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        stop.set()
        for caller in callers:
            caller.join()


def cosines(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the first vector to each of the others."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float32] = unit[1:] @ unit[0]
    return found


def test_it_shows_what_is_served_and_by_what(server: ServerProcess, visit: Open) -> None:
    tab = visit(server.rest)
    rows = tab.page.locator("#served tbody tr")
    expect(rows).to_have_count(5)
    row = rows.filter(has_text="smiles@2")
    expect(row).to_contain_text("BiGRU")
    expect(row).to_contain_text("1,024 floats")
    expect(row).to_contain_text("float32 on cpu")
    expect(row).to_contain_text("ready")
    expect(tab.page.locator("#state")).to_have_text("Connected")
    expect(tab.page.locator("#access")).to_have_text("No token needed.")
    row.get_by_role("button", name="Try smiles@2").click()
    expect(tab.page.locator("#sequence")).to_be_focused()


def test_it_encodes_what_is_typed(server: ServerProcess, visit: Open) -> None:
    tab = visit(server.rest)
    tab.page.select_option("#encoder", "smiles@2")
    tab.page.locator("#examples-box summary").click()
    examples = ["OC(=O)c1ccccc1O", "CCCCCCCC", "CCO"]
    tab.page.fill("#examples", "\n".join(["", *examples, "not a molecule!"]))
    tab.encode(ASPIRIN)
    tokens = tab.page.locator("#tokens li").evaluate_all("all => all.map(one => one.firstChild.textContent)")
    assert "".join(tokens) == ASPIRIN
    with birnn.Client(server.address) as client:
        vectors = client.encode([ASPIRIN, *examples], encoder="smiles", version="2")
    facts = dict(zip(*(tab.page.locator(f"#facts {part}").all_inner_texts() for part in ("dt", "dd")), strict=True))
    assert (facts["Tokens"], facts["Numbers"]) == ("21", "1,024")
    assert float(facts["Norm"]) == pytest.approx(np.linalg.norm(vectors[0]), rel=5e-3)
    near = cosines(vectors)
    order = np.argsort(-near)
    assert tab.page.locator("#nearest .text").all_inner_texts() == [examples[place] for place in order]
    shown = [float(text) for text in tab.page.locator("#nearest .cosine").all_inner_texts()]
    assert shown == pytest.approx(near[order].tolist(), abs=1e-3)
    assert "1 of the examples cannot be encoded" in tab.text("#nearest-note")
    assert "1024 numbers between" in (tab.page.get_attribute("#strip", "aria-label") or "")


def test_what_cannot_be_encoded_says_why(server: ServerProcess, visit: Open) -> None:
    tab = visit(server.rest)
    tab.page.select_option("#encoder", "smiles@2")
    tab.encode("C<b>C</b>")
    assert "cannot read character '<' at position 1" in tab.text("#told")
    expect(tab.page.locator("#outcome")).to_be_hidden()
    tab.encode("C[Xx]C")
    assert "does not know 1 of the tokens" in tab.text("#tokens-note")
    expect(tab.page.locator("#tokens .unknown")).to_have_count(1)


def test_what_is_typed_stays_text(server: ServerProcess, visit: Open) -> None:
    tab = visit(server.rest)
    tab.page.select_option("#encoder", "text@2")
    text = "<img src=x onerror=alert(1)> & </script> 'it''s'"
    tab.page.locator("#examples-box summary").click()
    tab.page.fill("#examples", "<b>bold</b>")
    tab.encode(text)
    assert "<b>bold</b>" in tab.text("#nearest")
    assert text in tab.text("#sample")
    assert "␣<" in tab.text("#tokens")
    assert tab.page.locator("main img").count() == 0


def test_a_long_text_shows_its_first_tokens_and_all_if_asked(server: ServerProcess, visit: Open) -> None:
    tab = visit(server.rest)
    tab.page.select_option("#encoder", "smiles@2")
    tab.encode("C" * 400)
    expect(tab.page.locator("#tokens li")).to_have_count(150)
    tab.page.get_by_role("button", name="Show all 400 tokens").click()
    expect(tab.page.locator("#tokens li")).to_have_count(400)


def test_charts_get_points_under_load(server: ServerProcess, visit: Open) -> None:
    tab = visit(server.rest)
    with load(server, "smiles-small"):
        for title, words in (
            ("Latency of calls", "p50: now "),
            ("Sequences answered", "/s, at most "),
            ("Time in the queue", "p99: now "),
            ("Sequences in a batch", "mean: now "),
        ):
            figure = tab.page.locator("figure", has=tab.page.get_by_text(title))
            # More than a dot, and said in words, too.
            line = figure.locator("path.first")
            until(lambda line=line: (line.get_attribute("d") or "").count("L") > 2)  # type: ignore[misc]
            assert words in (figure.locator("svg").get_attribute("aria-label") or "")
        tab.page.locator("#values summary").click()
        expect(tab.page.locator("#values tbody tr").first).to_contain_text("ms")
        # Of an encoder that is not called there is nothing to show.
        tab.page.select_option("#filter", "text")
        expect(tab.page.locator("figcaption").first).to_contain_text("p50 none")
        tab.page.select_option("#filter", "smiles-small")
        expect(tab.page.locator("figcaption").first).not_to_contain_text("none")
        tab.page.locator(".chart").first.hover()
        tab.page.mouse.move(*center(tab, ".chart"))
        expect(tab.page.locator(".readout").first).to_contain_text("s ago: p50 ")


def center(tab: Visit, selector: str) -> tuple[float, float]:
    box = tab.page.locator(selector).first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] - 10, box["y"] + box["height"] / 2


def test_everything_can_be_done_by_keyboard(server: ServerProcess, visit: Open) -> None:
    tab = visit(server.rest)
    keyboard = tab.page.keyboard
    expect(tab.page.locator("#served tbody tr")).to_have_count(5)
    keyboard.press("Tab")
    expect(tab.page.locator(".skip")).to_be_focused()
    keyboard.press("Enter")
    keyboard.press("Tab")
    expect(tab.page.locator("#encoder")).to_be_focused()
    assert tab.page.locator("#encoder").evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    tab.page.select_option("#encoder", "smiles@2")
    keyboard.press("Tab")
    expect(tab.page.locator("#sequence")).to_be_focused()
    keyboard.press("Control+a")
    keyboard.type("CCO")
    keyboard.press("Enter")
    expect(tab.page.locator("#told")).to_contain_text("Encoded by smiles@2: 3 tokens")
    assert tab.page.input_value("#sequence") == "CCO"
    # The tabs are one stop, and arrows go from one to the next.
    while tab.page.evaluate("document.activeElement.id") != "tab-python":
        keyboard.press("Tab")
    keyboard.press("ArrowRight")
    expect(tab.page.locator("#tab-curl")).to_be_focused()
    expect(tab.page.locator("#sample")).to_contain_text("/v1/embeddings")
    keyboard.press("End")
    expect(tab.page.locator("#sample")).to_contain_text("birnn.v1.EncoderService/Encode")
    keyboard.press("ArrowRight")
    expect(tab.page.locator("#tab-python")).to_have_attribute("aria-selected", "true")
    keyboard.press("Tab")
    expect(tab.page.locator("#panel")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_to_object_to(server: ServerProcess, visit: Open, scheme: str, size: tuple[int, int]) -> None:
    tab = visit(server.rest, size=size, color_scheme=scheme)
    tab.page.select_option("#encoder", "smiles@2")
    tab.encode(ASPIRIN)
    tab.page.wait_for_selector("#nearest li")
    for details in tab.page.locator("summary").all():
        details.click()
    tab.page.wait_for_selector("#values table")
    found = Axe().run(tab.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]})
    assert found.response["violations"] == [], found.generate_report()
    assert found.response["passes"]


def test_a_narrow_window_needs_no_scrolling_to_the_side(server: ServerProcess, visit: Open) -> None:
    tab = visit(server.rest, size=NARROW)
    tab.page.select_option("#encoder", "smiles@2")
    tab.encode("C" * 300)
    tab.page.locator("#values summary").click()
    assert tab.page.evaluate("document.documentElement.scrollWidth") == NARROW[0]


def test_light_and_dark_follow_the_system(server: ServerProcess, visit: Open) -> None:
    back = "getComputedStyle(document.documentElement).backgroundColor"
    backs = [visit(server.rest, color_scheme=scheme).page.evaluate(back) for scheme in ("light", "dark")]
    assert backs == ["rgb(245, 246, 248)", "rgb(16, 21, 27)"]


def test_nothing_is_asked_of_others_and_no_markup_can_be_made(server: ServerProcess, browser: Browser) -> None:
    tab = Visit(browser)
    tab.page.goto(server.rest)
    tab.page.select_option("#encoder", "smiles@2")
    tab.encode(ASPIRIN)
    assert {request.url.startswith(server.rest + "/") for request in tab.asked} == {True}
    for attack in (
        "document.body.innerHTML = '<img src=x onerror=alert(1)>'",
        "document.createElement('script').text = 'alert(1)'",
        "trustedTypes.createPolicy('mine', {createHTML: text => text})",
    ):
        tried = f"() => {{ try {{ {attack}; return 'done'; }} catch (error) {{ return error.name; }} }}"
        assert tab.page.evaluate(tried) == "TypeError"
    # The browser says that it has refused them.
    until(lambda: tab.page.evaluate("true") and sum(line.startswith("error: policy ") for line in tab.said) == 3)
    tab.close("error: policy ", "error: This document requires", "error: Creating a TrustedTypePolicy")


def test_a_server_that_is_away_is_said_and_comes_back(server: ServerProcess, browser: Browser) -> None:
    tab = Visit(browser)
    tab.page.goto(server.rest)
    state = tab.page.locator("#state")
    expect(state).to_have_text("Connected")
    tab.context.set_offline(True)
    expect(state).to_contain_text("No answer from the server")
    tab.page.select_option("#encoder", "smiles@2")
    tab.page.click("#encode")
    expect(tab.page.locator("#told")).to_have_text("The server does not answer.")
    tab.context.set_offline(False)
    expect(state).to_have_text("Connected", timeout=60_000)
    tab.close(AWAY)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, dict[str, str]]]:
    """A server with tokens: by name what they let their callers do."""
    path = tmp_path_factory.mktemp("guarded") / "tokens"
    rights = {"lab": ("encode",), "prometheus": ("metrics",), "both": ("encode", "metrics")}
    tokens = {
        name: change(path, "add", name, *(part for right in granted for part in ("--right", right)))
        for name, granted in rights.items()
    }
    with running(MODELS / "smiles-small" / "1", "--http-port", "0", "--tokens", str(path)) as server:
        yield server, tokens


def use(tab: Visit, token: str) -> None:
    tab.page.fill("#token", token)
    tab.page.keyboard.press("Enter")


def test_it_asks_for_a_token_and_keeps_it_in_the_tab_alone(
    guarded: tuple[ServerProcess, dict[str, str]], browser: Browser
) -> None:
    server, tokens = guarded
    tab = Visit(browser)
    tab.page.goto(server.rest)
    expect(tab.page.locator("#token")).to_be_focused()
    assert tab.said == []
    for hidden in ("#served-section", "#live-section", "#try"):
        expect(tab.page.locator(hidden)).to_be_hidden()
    use(tab, "birnn_wrong")
    expect(tab.page.get_by_role("alert")).to_contain_text("the token is not one of this server's")
    use(tab, tokens["both"])
    expect(tab.page.locator("#served tbody tr")).to_have_count(1)
    expect(tab.page.locator("#token-section")).to_be_hidden()
    tab.encode("CCO")
    expect(tab.page.locator("figcaption").first).to_contain_text("p50")
    # With the page open, it is in its session's storage and in the header of its calls, and nowhere else.
    stored = "JSON.stringify([Object.values(sessionStorage), Object.values(localStorage), document.cookie])"
    assert json.loads(tab.page.evaluate(stored)) == [[tokens["both"]], [], ""]
    assert tokens["both"] not in tab.page.content()
    assert [request.url for request in tab.asked if tokens["both"] in request.url] == []
    tab.page.reload()
    expect(tab.page.locator("#served tbody tr")).to_have_count(1)
    other = tab.context.new_page()
    other.goto(server.rest)
    expect(other.locator("#token")).to_be_focused()
    tab.page.get_by_role("button", name="Forget the token").click()
    expect(tab.page.locator("#token")).to_be_focused()
    assert json.loads(tab.page.evaluate(stored)) == [[], [], ""]
    tab.close(REFUSED)


@pytest.mark.parametrize(("who", "works", "lacks"), [("lab", "#try", "metrics"), ("prometheus", "#charts", "encode")])
def test_what_a_token_lacks_is_said_and_the_rest_works(
    guarded: tuple[ServerProcess, dict[str, str]], browser: Browser, who: str, works: str, lacks: str
) -> None:
    server, tokens = guarded
    tab = Visit(browser)
    tab.page.goto(server.rest)
    use(tab, tokens[who])
    expect(tab.page.locator(works)).to_be_visible()
    notice = tab.page.locator(".notice:visible")
    expect(notice).to_contain_text(f"lacks the right `{lacks}`")
    expect(tab.page.locator("#state")).to_have_text("Connected")
    expect(tab.page.locator("#charts" if who == "lab" else "#try")).to_be_hidden()
    tab.close(LACKING)


def test_it_works_with_tls(tmp_path: Path, visit: Open) -> None:
    pair = Authority(tmp_path).issue("server")
    files = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), "--http-port", "0")
    with running(MODELS / "smiles-small" / "1", *files) as server:
        assert server.rest.startswith("https://")
        tab = visit(server.rest, ignore_https_errors=True)
        tab.encode("CCO")
        assert "tls=birnn.Tls()" in tab.text("#sample")
        tab.page.click("#tab-grpcurl")
        assert "-plaintext" not in tab.text("#sample")
        tab.close()


def test_what_a_bundle_says_of_itself_stays_text(tmp_path: Path, visit: Open) -> None:
    bundle = tmp_path / "smiles-small" / "1"
    shutil.copytree(MODELS / "smiles-small" / "1", bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["description"] = "<img src=x onerror=alert(1)>"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    broken = tmp_path / "smiles-small" / "2"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    with running(tmp_path, "--http-port", "0") as server:
        tab = visit(server.rest)
        expect(tab.page.locator("#encoder-about")).to_have_text(manifest["description"])
        # What cannot be served is there, too, and says why.
        row = tab.page.locator("#served tbody tr").filter(has_text="smiles-small@2")
        expect(row).to_contain_text("unavailable")
        expect(row).to_contain_text("manifest")
        tab.close()


def test_an_encoder_without_examples_says_so_and_encodes_what_is_typed(tmp_path: Path, visit: Open) -> None:
    bundle = tmp_path / "smiles-small" / "1"
    shutil.copytree(MODELS / "smiles-small" / "1", bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    # Another reader of the same ids.
    ids = {token: number for number, token in enumerate(["<pad>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"])}
    content = VocabularyTokenizer(ids, "characters", unknown="<unk>").to_json().encode()
    (bundle / "tokenizer.json").write_bytes(content)
    manifest["tokenizer"]["kind"] = VocabularyTokenizer.kind
    manifest["files"]["tokenizer.json"] = hashlib.sha256(content).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with running(tmp_path, "--http-port", "0") as server:
        tab = visit(server.rest)
        expect(tab.page.locator("#encoder-about")).to_contain_text("There are no examples of what it reads")
        expect(tab.page.locator("#sequence")).to_have_value("")
        tab.encode("hello")
        tokens = tab.page.locator("#tokens li").evaluate_all("all => all.map(one => one.firstChild.textContent)")
        assert tokens == list("hello")
        assert "There are no examples for this encoder" in tab.text("#nearest-note")
        tab.close()


def test_an_encoder_of_features_says_that_it_takes_no_strings(tmp_path: Path, visit: Open) -> None:
    exported(tmp_path)
    with running(tmp_path / "models", "--http-port", "0") as server:
        tab = visit(server.rest)
        expect(tab.page.locator("#encoder-about")).to_contain_text("reads sequences of numbers, not strings")
        expect(tab.page.locator("#encode")).to_be_disabled()
        tab.close()
