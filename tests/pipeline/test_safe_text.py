from unstill.pipeline.safe_text import csv_cell, latex_text, printable


def test_a_terminal_a_spreadsheet_and_latex_see_letters():
    assert printable("a\x1b[31m\nb\u202e") == r"a\x1b[31m\nb\u202e"
    assert printable("Zürich 東京 50 %") == "Zürich 東京 50 %"
    for text in ("=cmd|calc!A1", "+1", "-1", "@x", "\tx"):
        assert csv_cell(text).startswith("'")
    assert csv_cell("walk, run") == "walk, run"
    assert latex_text("\\input{a}^^5c~_%\r") == (
        r"\textbackslash{}input\{a\}\textasciicircum{}\textasciicircum{}5c\textasciitilde{}\_\%\textbackslash{}r"
    )
