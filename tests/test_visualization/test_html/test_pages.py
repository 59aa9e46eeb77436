import pytest
from jinja2 import UndefinedError

from mmdet_lesion.visualization.html import template_environment, write_page


def test_templates_of_a_page_include_shared_ones(tmp_path):
    (tmp_path / "page.html").write_text('{% include "grays.js" %}|{{ name }}|{{ data | tojson }}')
    template = template_environment(tmp_path).get_template("page.html")
    text = template.render(name="<b>", data={"b": "</script>", "a": 1})
    code, name, data = text.rsplit("|", 2)
    assert "function grayImage(" in code
    assert name == "&lt;b&gt;"
    assert "</script>" not in data and data.index("b") < data.index("a")
    with pytest.raises(UndefinedError):
        template.render(data={})


def test_pages_with_undecodable_names_are_written(tmp_path):
    path = tmp_path / "new" / "page.html"
    write_page(path, "\udcff é")
    assert path.read_text(encoding="utf-8") == "\\udcff é"
