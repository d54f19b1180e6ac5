from __future__ import annotations

import sys

import pytest

from seq2exp.core.errors import InputError
from seq2exp.report.igv import find_igv
from seq2exp.report.page import policy, script_hash

CLASSIC = 'var igv=function(){return{createBrowser:1,version:"3.2.1"}}();'


def test_a_given_script_is_read_with_its_version(tmp_path):
    path = tmp_path / "igv.min.js"
    # A byte order mark would be lost when the page unpacks the text, and with it the hash.
    path.write_text(f"\ufeff{CLASSIC}\n//# sourceMappingURL=igv.min.js.map\n", encoding="utf-8")
    found = find_igv(path)
    assert found.text == f"{CLASSIC}\n"
    assert found.version == "3.2.1"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "no such file"),
        ("alert(1)", "without createBrowser"),
        ("const a={createBrowser:1};export{a as default};", "an ES module"),
    ],
)
def test_what_is_no_such_script_is_refused(tmp_path, text, found):
    path = tmp_path / "igv.js"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"{found}.*npm package igv"):
        find_igv(path)


def test_an_installed_script_is_found_without_importing_its_package(tmp_path, monkeypatch):
    package = tmp_path / "igv_notebook"
    (package / "js").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "igv_notebook", raising=False)
    assert find_igv() is None
    (package / "js" / "igv.min.js").write_text(CLASSIC)
    assert find_igv().version == "3.2.1"
    (package / "js" / "igv.iife.js").write_text(CLASSIC.replace("3.2.1", "3.3.0"))
    assert find_igv().version == "3.3.0"


def test_without_the_package_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "igv_notebook", None)
    assert find_igv() is None


def test_the_policy_names_scripts_by_their_hash():
    """The example of the CSP 2 specification: the SHA-256 of `alert('Hello, world.');`."""
    expected = "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
    assert script_hash("alert('Hello, world.');") == expected
    assert f"script-src {expected};" in policy(["alert('Hello, world.');"])
    assert "script-src" not in policy()
    assert policy().startswith("default-src 'none'")
