"""Runner of the tables of bad inputs."""

import pytest


@pytest.fixture
def refuse(load_tool, tmp_path, monkeypatch, capsys):
    """Function that runs a tool on files and checks that it ends in one sentence.

    Args of the function: path of the tool within ``tools``, command line, expected fragment of the
    sentence, files (name → text or bytes), exit status.
    """
    # Processes of a tool would import the package again.
    monkeypatch.chdir(tmp_path)

    def run(tool, words, fragment, files=(), status=2):
        for name, content in dict(files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        capsys.readouterr()
        try:
            found = load_tool(tool).main(words.split() if isinstance(words, str) else words)
        except SystemExit as end:
            found = end.code
        error = capsys.readouterr().err
        sentence = error.strip().splitlines()[-1] if error.strip() else ""
        assert fragment in sentence, error
        assert "error: " in sentence and "Traceback" not in error
        assert found == status, error
        assert len(sentence) < 2000

    return run
