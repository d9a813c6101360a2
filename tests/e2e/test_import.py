"""`hilgate import` as it is installed."""

from pathlib import Path

from shell import hilgate

SAMPLES = Path(__file__).parents[1] / "unit" / "kubeedge"


async def test_a_profile_is_made_of_kubeedge_files_and_is_valid(tmp_path: Path) -> None:
    files = [str(SAMPLES / name) for name in ("v1alpha2-devices.yaml", "v1alpha2-models.yaml")]
    made = await hilgate("import", "kubeedge", *files)
    assert made.code == 0
    assert "hilgate: device pump: spec.nodeSelector has no counterpart" in made.err
    profile = tmp_path / "made.yaml"
    profile.write_text(made.out, "utf-8")
    checked = await hilgate("check", str(profile))
    assert (checked.code, checked.err) == (0, "")


async def test_what_cannot_be_a_profile_says_why(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("kind: ConfigMap\napiVersion: v1\n")
    made = await hilgate("import", "kubeedge", str(path))
    assert made.code == 1
    assert made.out == ""
    assert "no device that a profile can express" in made.err
    assert (await hilgate("import", "kubeedge", str(tmp_path / "none.yaml"))).code == 3


async def test_files_of_one_name_in_two_folders_are_two_files(tmp_path: Path) -> None:
    files = []
    for folder, name in (("one", "v1alpha2-devices.yaml"), ("two", "v1alpha2-models.yaml")):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "plant.yaml")
        files[-1].write_text((SAMPLES / name).read_text("utf-8"), "utf-8")
    made = await hilgate("import", "kubeedge", *map(str, files))
    assert (made.code, "  pump:" in made.out) == (0, True)
    files[1].write_bytes(b'a: "\xff"')
    made = await hilgate("import", "kubeedge", *map(str, files))
    assert (made.code, made.out) == (1, "")
    assert f"{files[1]} is not UTF-8: invalid start byte at byte 4" in made.err
