"""Tables, read by other parsers."""

from xml.etree import ElementTree

from slim.common.tables import Table

TABLE = Table(["name", "accuracy"], [["A & <B>", "12.5%"], ["C", "3.0%"]], numeric=[1])


def test_markdown():
    assert str(TABLE).splitlines() == [
        "| name | accuracy |",
        "| --- | ---: |",
        "| A & <B> | 12.5% |",
        "| C | 3.0% |",
    ]


def test_html_has_the_same_cells():
    rows = ElementTree.fromstring(TABLE._repr_html_())
    assert [[cell.text for cell in row] for row in rows] == [
        ["name", "accuracy"],
        ["A & <B>", "12.5%"],
        ["C", "3.0%"],
    ]
    assert [cell.get("style") for cell in rows[1]] == ["text-align: left", "text-align: right"]
