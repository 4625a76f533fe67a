"""Motion capture as programs write it, whatever the formats say: every kind that a reader has stumbled over."""

import json
import struct
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import rigs
from hypothesis import given
from hypothesis import strategies as st
from test_mocap_formats import AMC, ASF, LABELS, TINY, complains, marker_points

from structloss.cli import main
from structloss.data import Clip, load_archive, observe, open_store, save_archive
from structloss.data.formats import JOINT_MAPS, parse_bvh, parse_c3d, read_asf, read_bvh, read_c3d, write_bvh
from structloss.data.formats._rates import frame_rate, frame_time
from structloss.data.formats.asf_amc import _forward_kinematics, _read_motion
from structloss.data.inspection import inspect_data
from structloss.errors import DataError
from structloss.skeletons import get

FAULTS = Path(__file__).parent / "golden" / "faults"
J = {name: j for j, name in enumerate(get("h36m").joint_names)}

MIXAMO = "Hips Spine Spine1 Neck Head | *UpLeg *Leg *Foot *Shoulder *Arm *ForeArm *Hand | Left Right"
FAMILIES = {
    "mixamo": MIXAMO,
    "biovision": "Hips Chest Chest2 Neck Head | *Hip *Knee *Ankle *Collar *Shoulder *Elbow *Wrist | Left Right",
    "biovision (old)": "Hips Waist Chest Neck Head | *UpLeg *LowLeg *Foot *Collar *UpArm *LowArm *Hand | Left Right",
    "daz": "hip abdomen chest neck head | *Thigh *Shin *Foot *Collar *Shldr *ForeArm *Hand | l r",
    "daz (Genesis)": "hip abdomenLower chestLower neckLower head | *ThighBend *Shin *Foot *Collar *ShldrBend "
    "*ForearmBend *Hand | l r",
    "humanoid": "Hips Spine Chest Neck Head | UpperLeg_* LowerLeg_* Foot_* Shoulder_* UpperArm_* LowerArm_* Hand_* "
    "| L R",
    "humanoid (VRM)": "J_Bip_C_Hips J_Bip_C_Spine J_Bip_C_Chest J_Bip_C_Neck J_Bip_C_Head | J_Bip_*_UpperLeg "
    "J_Bip_*_LowerLeg J_Bip_*_Foot J_Bip_*_Shoulder J_Bip_*_UpperArm J_Bip_*_LowerArm J_Bip_*_Hand | L R",
    "unity": "Hips Spine Chest Neck Head | *UpperLeg *LowerLeg *Foot *Shoulder *UpperArm *LowerArm *Hand | Left Right",
    "rokoko": "Hips Spine1 Spine2 Neck Head | *Thigh *Shin *Foot *Shoulder *Arm *ForeArm *Hand | Left Right",
    "unreal": "pelvis spine_01 spine_02 neck_01 head | thigh_* calf_* foot_* clavicle_* upperarm_* lowerarm_* hand_* "
    "| l r",
    "rigify": "spine spine.001 spine.002 spine.004 spine.006 | thigh.* shin.* foot.* shoulder.* upper_arm.* forearm.* "
    "hand.* | L R",
    "rigify (DEF)": "DEF-spine DEF-spine.001 DEF-spine.002 DEF-spine.004 DEF-spine.006 | DEF-thigh.* DEF-shin.* "
    "DEF-foot.* DEF-shoulder.* DEF-upper_arm.* DEF-forearm.* DEF-hand.* | L R",
    "biped": "Bip01 Bip01~Spine Bip01~Spine1 Bip01~Neck Bip01~Head | Bip01~*~Thigh Bip01~*~Calf Bip01~*~Foot "
    "Bip01~*~Clavicle Bip01~*~UpperArm Bip01~*~Forearm Bip01~*~Hand | L R",
    "smpl": "Pelvis Spine1 Spine2 Neck Head | *_Hip *_Knee *_Ankle *_Collar *_Shoulder *_Elbow *_Wrist | L R",
    "smpl (FBX)": "m_avg_Pelvis m_avg_Spine1 m_avg_Spine2 m_avg_Neck m_avg_Head | m_avg_*_Hip m_avg_*_Knee "
    "m_avg_*_Ankle m_avg_*_Collar m_avg_*_Shoulder m_avg_*_Elbow m_avg_*_Wrist | L R",
}


def quiet(function, *arguments, **keywords):
    """What a function returns, and what it warns of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return function(*arguments, **keywords), [str(warning.message) for warning in said]


def same_joints(clip, places, joints=None):
    for joint, place in rigs.expected(places).items():
        if joints is None or joint in joints:
            np.testing.assert_allclose(clip.positions[:, J[joint]], place, atol=2e-6, err_msg=joint)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "change", [str, str.lower, lambda n: f"Anna:{n}", lambda n: f"Character1_{n}"], ids=["", "small", "colon", "prefix"]
)
def test_families_of_names(family, change, tmp_path):
    called = {role: change(name) for role, name in rigs.names(FAMILIES[family]).items()}
    places = rigs.write(tmp_path / "a.bvh", called, turned={"lknee": 40, "neck": 10, "relbow": -50})
    clip, said = quiet(read_bvh, tmp_path / "a.bvh")
    assert said == [] and clip.unknown == () and clip.known.all()
    same_joints(clip, places)


def test_which_map_is_taken(tmp_path):
    """Names that two families share go to the one that fits as a whole; a map is also asked for by name."""
    from structloss.data.formats._named import choose_map
    from structloss.data.formats.bvh import _BUILTIN

    for family, text in FAMILIES.items():
        rigs.write(tmp_path / "a.bvh", rigs.names(text))
        found, _ = choose_map(tmp_path / "a.bvh", parse_bvh(tmp_path / "a.bvh").names, "auto", _BUILTIN, "joint")
        assert found.name == family.partition(" ")[0] and found is JOINT_MAPS[found.name]
        read_bvh(tmp_path / "a.bvh", joints=found.name)


def test_names_of_your_own_are_taken_as_they_are(tmp_path):
    """A map from somebody is looked up to the letter: what it says is what it means."""
    rigs.write(tmp_path / "a.bvh", rigs.names(MIXAMO))
    own = {joint: list(names) for joint, names in JOINT_MAPS["mixamo"].joints.items()} | {"Head": "Head.end"}
    assert read_bvh(tmp_path / "a.bvh", joints=own, scale=0.01).unknown == ()
    text = complains(DataError, read_bvh, tmp_path / "a.bvh", joints=own | {"Spine": "spine1"}, scale=0.01)
    assert "no joint for Spine (spine1)" in text


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_map_leaves_a_joint_out(suffix, tmp_path, capsys):
    places = rigs.write(tmp_path / "a.bvh", rigs.names(MIXAMO))
    own = {joint: list(names) for joint, names in JOINT_MAPS["mixamo"].joints.items()} | {"Head": None, "LWrist": None}
    (tmp_path / f"map{suffix}").write_text(json.dumps(own))
    clip, said = quiet(read_bvh, tmp_path / "a.bvh", joints=tmp_path / f"map{suffix}", scale=0.01)
    assert clip.unknown == ("Head", "LWrist") and [joint for joint in J if not clip.known[J[joint]]] == [
        "Head",
        "LWrist",
    ]
    assert len(said) == 1 and "has no Head, LWrist: weight 0, nothing is trained on it or scored" in said[0]
    same_joints(clip, places, J.keys() - {"Head", "LWrist"})
    np.testing.assert_array_equal(clip.positions[:, J["Head"]], clip.positions[:, J["Neck/Nose"]])
    assert "Hip in joints is None" in complains(DataError, read_bvh, tmp_path / "a.bvh", joints=own | {"Hip": None})
    # From there to what is trained on: the archive keeps it, the store has weight 0, the report tells.
    for out, options in (("a.npz", ()), ("a.poses", ("--views", "1", "--detections", "exact"))):
        assert main(["data", "convert", str(tmp_path / "a.bvh"), str(tmp_path / out), "--joints",
                     str(tmp_path / f"map{suffix}"), "--fps", "30", "--scale", "0.01", *options]) == 0  # fmt: skip
        assert "has no Head, LWrist: weight 0" in capsys.readouterr().err
    (back,), _ = load_archive(tmp_path / "a.npz")
    assert back.unknown == clip.unknown and back.resampled(60).unknown == clip.unknown
    for store in (open_store(tmp_path / "a.poses"), observe([back], views=1, detections="exact")):
        assert [j for j in J if not store.weight[:, J[j]].any()] == ["Head", "LWrist"] and store.weight.sum() == 3 * 15
        assert (store.input[:, [J["Head"], J["LWrist"]]] == 0).all() and np.isfinite(store.pose).all()
    for name in ("a.npz", "a.poses"):
        report = inspect_data(tmp_path / name)
        assert report.known == pytest.approx(15 / 17) and "Neck/Nose-Head" not in report.bones


def test_unknown_joints_of_an_archive_are_checked(tmp_path):
    clip = Clip(np.random.default_rng(0).normal(size=(3, 17, 3)), "s", "a", "n", unknown=("Head",))
    save_archive(tmp_path / "a.npz", [clip])
    (back,), meta = load_archive(tmp_path / "a.npz")
    assert back.unknown == ("Head",) and meta["clips"][0]["unknown"] == ["Head"]
    for wrong in ("Head", ["Crown"], [["Head"]], 3):
        meta["clips"][0]["unknown"] = wrong
        np.savez(tmp_path / "b.npz", meta=np.array(json.dumps(meta)), **{clip.key: clip.positions})
        assert "unknown of clip 's/n'" in complains(DataError, load_archive, tmp_path / "b.npz")
    with pytest.raises(ValueError, match="unknown joint 'Hip'"):
        Clip(clip.positions, "s", "a", "n", unknown=("Hip",))


# The head -------------------------------------------------------------------------------------------------------------

LEG = 85.0  # cm, of rigs.BODY


def top_of(places, turned):
    """Where the top belongs: beyond the head's joint, in line with neck and head at rest, 0.12 legs away."""
    offset = np.array(rigs.BODY["head"][1])
    x, y, z = offset / np.linalg.norm(offset) * 0.12 * LEG / 100
    angle = np.radians(turned)
    y, z = y * np.cos(angle) - z * np.sin(angle), y * np.sin(angle) + z * np.cos(angle)
    return places["head"] + np.array([x, -z, y])


@pytest.mark.parametrize("top", [(0.0, 0.0, 0.0), None], ids=["at the head", "none"])
@pytest.mark.parametrize("scale", [1.0, 1 / 2.54])
def test_a_head_without_an_end(top, scale, tmp_path):
    places = rigs.write(tmp_path / "a.bvh", rigs.names(MIXAMO), top=top, turned={"neck": 20, "head": 30}, scale=scale)
    clip, said = quiet(read_bvh, tmp_path / "a.bvh", scale=0.01 / scale)
    assert len(said) == 1 and "does not tell where the head ends: its top is put 0.12 of the length of a leg" in said[0]
    np.testing.assert_allclose(clip.positions[:, J["Head"]], top_of(places, 50), atol=2e-6)
    same_joints(clip, places, J.keys() - {"Head"})
    assert clip.unknown == ()


def test_a_head_without_an_end_nor_a_direction(tmp_path, monkeypatch):
    """Nothing to go by: weight 0."""
    monkeypatch.setitem(rigs.BODY, "head", ("neck", (0, 0, 0)))
    monkeypatch.setitem(rigs.BODY, "neck", ("spine", (0, 0, 0)))
    monkeypatch.setitem(rigs.BODY, "spine", ("low", (0, 0, 0)))
    monkeypatch.setitem(rigs.BODY, "low", ("hips", (0, 0, 0)))
    rigs.write(tmp_path / "a.bvh", rigs.names(MIXAMO), top=None)
    clip, said = quiet(read_bvh, tmp_path / "a.bvh", scale=0.02)
    assert "Head" in clip.unknown and any("has no Head: weight 0" in text for text in said)


def test_the_head_of_the_faulty_file(tmp_path):
    clip, _ = quiet(read_bvh, FAULTS / "head_end_zero.bvh")
    length = np.linalg.norm(clip.positions[:, J["Head"]] - clip.positions[:, J["Neck/Nose"]], axis=-1)
    np.testing.assert_allclose(length, 0.102, atol=1e-4)
    report = inspect_data(FAULTS / "head_end_zero.bvh")
    assert (
        any("where the head ends" in note for note in report.notes) and report.bones["Neck/Nose-Head"]["mean_mm"] == 102
    )


@pytest.mark.parametrize("role", ["lwrist", "rfoot"])
def test_a_limb_that_ends_where_it_begins(role, tmp_path, monkeypatch):
    monkeypatch.setitem(rigs.BODY, role, (rigs.BODY[role][0], (0, 0, 0)))
    rigs.write(tmp_path / "a.bvh", rigs.names(MIXAMO))
    clip, said = quiet(read_bvh, tmp_path / "a.bvh")
    joint = {"lwrist": "LWrist", "rfoot": "RFoot"}[role]
    assert clip.unknown == (joint,) and len(said) == 1 and f"has no length for {joint}: weight 0" in said[0]


# Units ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per_cm", "hint"),
    [
        (1 / 2.54, "0.0254 if they are inches"),
        (0.01, "1 if they are metres"),
        (10.0, "0.001 if they are millimetres"),
        (1 / 30.48, "0.3048 if they are feet"),
        (1 / 5.64444, "0.0564444 if they are the units of the CMU database"),
    ],
)
def test_units_are_proposed(per_cm, hint, tmp_path, capsys):
    places = rigs.write(tmp_path / "a.bvh", rigs.names(FAMILIES["biovision"]), scale=per_cm)
    text = complains(DataError, read_bvh, tmp_path / "a.bvh")
    assert f"expected 1 to 2.5 m; set scale, the metres per unit of the file: {hint}." in text
    assert main(["data", "inspect", str(tmp_path / "a.bvh")]) == 1
    assert f"; set --scale, the metres per unit of the file: {hint}" in capsys.readouterr().err
    clip = read_bvh(tmp_path / "a.bvh", scale=float(hint.split()[0]))
    np.testing.assert_allclose(clip.positions[:, J["LFoot"]], places["lfoot"], rtol=1e-4, atol=1e-4)
    rigs.write(tmp_path / "b.bvh", rigs.names(MIXAMO), scale=1e6)
    assert complains(DataError, read_bvh, tmp_path / "b.bvh").endswith("; set scale, the metres per unit of the file.")


# Rates ----------------------------------------------------------------------------------------------------------------

NTSC = [24000 / 1001, 30000 / 1001, 60000 / 1001, 120000 / 1001]


@pytest.mark.parametrize("fps", [*NTSC, 24, 25, 29.9, 30, 37, 50, 60, 100, 119.5, 120, 240, 12.5, 1000 / 3])
def test_rates_come_back(fps, tmp_path):
    write_bvh(tmp_path / "a.bvh", np.random.default_rng(0).normal(size=(2, 17, 3)), fps)
    assert parse_bvh(tmp_path / "a.bvh").fps == pytest.approx(fps, rel=1e-15)
    for digits in ("%.6f", "%.7f", "%.8f", "%.10g", "%.7e"):
        assert frame_rate(digits % (1 / fps)) == pytest.approx(fps, rel=1e-9 if fps in (*NTSC, *range(300)) else 2e-4)


@pytest.mark.parametrize(
    ("printed", "fps"),
    [
        ("0.0417083", NTSC[0]), ("0.041708", NTSC[0]), ("0.041667", 24), ("0.041666", 24), ("0.0333667", NTSC[1]),
        ("0.033367", NTSC[1]), ("0.03337", NTSC[1]), ("0.0334", NTSC[1]), ("0.0333", 30), ("0.033333", 30),
        ("0.033", 30), ("0.0166833", NTSC[2]), ("0.01668", NTSC[2]), ("0.016667", 60), ("0.01667", 60), ("0.0167", 60),
        ("0.008342", NTSC[3]), ("0.0083417", NTSC[3]), ("0.008333", 120), ("0.00833333", 120), ("0.0083", 120),
        ("8.333333e-03", 120), (".04", 25), ("0.02", 50), ("0.01", 100), ("0.005", 200), ("1", 1), ("0.03", 1 / 0.03),
        ("0.0333333351", 30), ("0.0083333337679505", 120), ("0.041708333333333", NTSC[0]), ("0.0270270", 37),
        ("0.033444816", 29.9), ("0.0334448161", 29.9),
    ],
)  # fmt: skip
def test_rates_of_printed_times(printed, fps):
    assert frame_rate(printed) == pytest.approx(fps, rel=1e-6)


@given(st.floats(0.5, 2000))
def test_any_rate_is_written_and_read(fps):
    assert frame_rate(frame_time(fps)) == pytest.approx(fps, rel=3e-7)


def test_rates_of_the_archive_and_of_c3d(tmp_path):
    clip = Clip(np.random.default_rng(0).normal(size=(9, 17, 3)), "s", "a", "n", NTSC[2])
    save_archive(tmp_path / "a.npz", [clip])
    assert load_archive(tmp_path / "a.npz")[0][0].fps == NTSC[2]
    assert parse_c3d(c3d(tmp_path / "a.c3d", rate=59.94)).fps == 59.94


# Text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(encoding, tmp_path):
    text = TINY.replace("B b", "Hüfte")
    (tmp_path / "a.bvh").write_bytes(text.encode(encoding))
    assert parse_bvh(tmp_path / "a.bvh").names == ("A", "Hüfte", "Hüfte.end")
    (tmp_path / "a.asf").write_bytes(ASF.encode(encoding))
    (tmp_path / "a.amc").write_bytes(AMC.encode(encoding))
    skeleton = read_asf(tmp_path / "a.asf")
    from structloss.reading import read_text

    values = _read_motion(tmp_path / "a.amc", read_text(tmp_path / "a.amc", ""), skeleton)
    np.testing.assert_allclose(np.degrees(values["shin"]), [[15, -25], [90, 0]])
    rigs.write(tmp_path / "b.bvh", rigs.names(MIXAMO))
    own = {joint: list(names) for joint, names in JOINT_MAPS["mixamo"].joints.items()}
    for name in ("map.json", "map.yaml"):
        (tmp_path / name).write_bytes(json.dumps(own).encode(encoding))
        assert len(read_bvh(tmp_path / "b.bvh", joints=tmp_path / name, scale=0.01)) == 3


def test_braces_without_blanks(tmp_path):
    """And a hierarchy on one line, `EndSite` in one word, tabs, and MOTION right behind the last brace."""
    want = parse_bvh(_put(tmp_path, TINY))
    close = TINY.replace("ROOT A\n{", "ROOT A{").replace("JOINT B b\n  {", "JOINT B b{OFFSET 1 0 0}", 0)
    close = close.replace("\n  {\n    OFFSET", "{OFFSET").replace("\n    {\n      OFFSET", "{OFFSET")
    close = close.replace("    }\n  }\n}\n", "}}}").replace("End Site", "EndSite")
    assert "}}}MOTION" in close and "A{" in close and "B b{OFFSET" in close and "EndSite{" in close
    for text in (close, close.replace("\n", "\r\n"), " ".join(close.split())):
        motion = parse_bvh(_put(tmp_path, text))
        assert (motion.names, motion.parents, motion.channels) == (want.names, want.parents, want.channels)
        np.testing.assert_array_equal(motion.positions(), want.positions())


@pytest.mark.parametrize(("said", "expected"), [(1, True), (3, True), (4, False), (5, False), (20, False)])
def test_frame_counts(said, expected, tmp_path):
    path = _put(tmp_path, TINY.replace("Frames: 2", f"Frames: {said}"))
    if expected:
        motion, warned = quiet(parse_bvh, path)
        assert len(motion.values) == 2 and warned == [
            f"{path} says that it has {said} frames, but has 2; all are read."
        ]
    else:
        assert "is it truncated?" in complains(DataError, parse_bvh, path)
    more = _put(tmp_path, TINY + "0 0 0 0 0 0 0 0 0\n" * 4)
    text = complains(DataError, parse_bvh, more)
    assert "has 54 values, expected 18: 2 frames of 9 channels; it has more frames" in text and "truncated" not in text


def _put(folder, text):
    (folder / "a.bvh").write_bytes(text.encode())
    return folder / "a.bvh"


def test_end_sites_by_the_million(tmp_path):
    """A body of which nothing moves would take memory for every frame of every one of its joints."""
    head = "HIERARCHY ROOT A { OFFSET 0 0 0 CHANNELS 1 Xposition " + "End Site { OFFSET 0 1 0 } " * 20_000
    path = _put(tmp_path, head + "} MOTION Frames: 100000 Frame Time: 0.01\n" + "0 " * 100_000)
    assert "has 20001 joints and 1 channels" in complains(DataError, parse_bvh, path)


def test_a_body_without_channels(tmp_path):
    text = "HIERARCHY ROOT A { OFFSET 0 0 0 CHANNELS 0 } MOTION Frames: 99999999999 Frame Time: 0.01\n"
    assert "have no channels" in complains(DataError, parse_bvh, _put(tmp_path, text))


def test_amc_that_forces_three_degrees_of_freedom(tmp_path):
    """Each bone has three values, those without degrees of freedom too; comments and flags may be indented."""
    (tmp_path / "a.asf").write_text(ASF)
    skeleton = read_asf(tmp_path / "a.asf")
    forced = (
        "  #!OML:ASF x.ASF\n  :FULLY-SPECIFIED\n\t:DEGREES\n :FORCE-ALL-JOINTS-BE-3DOF\n"
        "1 # the first\nroot 1 0 0 10 20 30\nshin 15 0 -25\nthigh 1 2 3\ntoe 0 0 0\n"
        "  # between\n2\nroot 0 1 0 0 0 0\nshin 90 5 0\nthigh 0 0 0\ntoe 0 0 40\n"
    )
    path = tmp_path / "a.amc"
    values = _read_motion(path, forced, skeleton)
    plain = _read_motion(path, AMC, skeleton)
    np.testing.assert_allclose(np.degrees(values["shin"]), [[15, 0, -25], [90, 5, 0]])
    first, want = (_forward_kinematics(skeleton, v) for v in (values, plain))
    np.testing.assert_allclose(first[0], want[0], atol=1e-12)  # the same pose: what it does not have is 0
    full = ASF.replace("dof rx rz", "dof rx ry rz").replace("axis 0 0 0 XYZ\n", "axis 0 0 0 XYZ\n    dof rx ry rz\n")
    (tmp_path / "b.asf").write_text(full)
    other = read_asf(tmp_path / "b.asf")
    want = _forward_kinematics(other, _read_motion(path, forced.replace(":FORCE-ALL-JOINTS-BE-3DOF", ""), other))
    np.testing.assert_allclose(first, want, atol=1e-12)
    turned = ASF.replace("dof rx ry rz", "dof rz ry rx")  # of a bone with all three, in the order that it says
    (tmp_path / "c.asf").write_text(turned)
    thigh = _read_motion(path, forced, read_asf(tmp_path / "c.asf"))["thigh"]
    np.testing.assert_allclose(np.degrees(thigh), [[1, 2, 3], [0, 0, 0]])
    short = forced.replace("toe 0 0 40", "toe 0 0")
    assert "frame 2 of" in complains(DataError, _read_motion, path, short, skeleton)
    assert "a word of 10000 characters" in complains(DataError, _read_motion, path, "x" * 10_000, skeleton)


# C3D ------------------------------------------------------------------------------------------------------------------


def c3d(path, points=None, *, labels=LABELS, status=0.0, analogue=0, samples=1, header=None, used=None, rate=100.0,
        analogue_rate=None, data_start=4, header_start=4, header_samples=None, extra=b"", group=True):  # fmt: skip
    """A C3D file of Intel's floats by hand, with a say in every place where analogue data are counted."""
    points = marker_points() * 1000 if points is None else points
    frames, markers = points.shape[:2]
    words = analogue * samples

    def record(name, of, kind=None, shape=(), content=b""):
        body = b"\0" if kind is None else struct.pack("bB", kind, len(shape)) + bytes(shape) + content + b"\0"
        return struct.pack("bb", len(name), of) + name.encode() + struct.pack("<h", len(body) + 2) + body

    parameters = record("POINT", -1) + record("SCALE", 1, 4, (), struct.pack("<f", -1))
    parameters += record("RATE", 1, 4, (), struct.pack("<f", rate)) + record("UNITS", 1, -1, (2,), b"mm")
    parameters += record("LABELS", 1, -1, (4, markers), "".join(f"{label:4}" for label in labels).encode())
    if data_start is not None:
        parameters += record("DATA_START", 1, 2, (), struct.pack("<H", data_start))
    if analogue and group:
        parameters += record("ANALOG", -2)
        parameters += record("USED", 2, 2, (), struct.pack("<H", analogue if used is None else used))
        parameters += record("RATE", 2, 4, (), struct.pack("<f", analogue_rate or rate * samples))
    parameters = (bytes([1, 0x50, 2, 84]) + parameters + extra + b"\0\0").ljust(1024, b"\0")
    head = struct.pack("<BBHHHHHfHHf", 2, 0x50, markers, words if header is None else header, 1, frames, 10, -1.0,
                       header_start, samples if header_samples is None else header_samples, rate)  # fmt: skip
    rows = np.full((frames, 4 * markers + words), 0.25, "<f4")
    rows[:, : 4 * markers] = np.concatenate([points, np.broadcast_to(status, (*points.shape[:2], 1))], -1).reshape(
        frames, -1
    )
    data = rows.tobytes()
    path.write_bytes(head.ljust(512, b"\0") + parameters + data + bytes(-len(data) % 512))
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {"analogue": 16, "samples": 7},
        {"analogue": 16, "samples": 7, "header": 16},  # channels only
        {"analogue": 16, "samples": 7, "header": 7},
        {"analogue": 16, "samples": 7, "header": 0},
        {"analogue": 16, "samples": 7, "header": 16, "group": False},  # times word 10
        {"analogue": 16, "samples": 7, "group": False},
        {"analogue": 16, "samples": 7, "used": 0},  # the header is right
        {"analogue": 16, "samples": 7, "used": 20},
        {"analogue": 16, "samples": 7, "analogue_rate": 100.0},
        {"analogue": 16, "samples": 7, "analogue_rate": 7.0, "header": 16},  # samples instead of a rate
        {"analogue": 3, "samples": 20, "analogue_rate": 1998.0, "rate": 99.9, "header": 60},
        {"analogue": 1, "samples": 1},
        {},
    ],
)
def test_analogue_words(settings, tmp_path):
    """Whichever of header and parameters is wrong: the one that fits the file's size tells the frames' length."""
    recorded = parse_c3d(c3d(tmp_path / "a.c3d", **settings))
    np.testing.assert_allclose(recorded.points, marker_points() * 1000, rtol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"data_start": 0}, {"data_start": None}, {"header_start": 0}, {"data_start": 4, "header_start": 9}]
)
def test_where_the_data_begin(settings, tmp_path):
    recorded = parse_c3d(c3d(tmp_path / "a.c3d", **settings))
    np.testing.assert_allclose(recorded.points, marker_points() * 1000, rtol=1e-6)
    c3d(tmp_path / "b.c3d", data_start=0, header_start=0)
    assert "its data in block 0" in complains(DataError, parse_c3d, tmp_path / "b.c3d")


@pytest.mark.parametrize("status", [0.0, 25.5, -1.0])
@pytest.mark.filterwarnings("ignore:.*markers on the skin.*")
def test_markers_at_the_origin_were_not_seen(status, tmp_path):
    """Written by many programs for a marker that drops out; bridged as NaN is."""
    points = marker_points(60) * 1000
    knee = LABELS.index("RKNE")
    whole = read_c3d(c3d(tmp_path / "whole.c3d", points))
    zero, nan, all_status = points.copy(), points.copy(), np.zeros((60, len(LABELS), 1))
    zero[20:23, knee] = 0
    nan[20:23, knee] = np.nan
    all_status[20:23, knee] = status
    got = read_c3d(c3d(tmp_path / "zero.c3d", zero, status=all_status))
    np.testing.assert_array_equal(got.positions, read_c3d(c3d(tmp_path / "nan.c3d", nan)).positions)
    assert np.abs(got.positions - whole.positions).max() < 0.05
    assert np.isnan(parse_c3d(tmp_path / "zero.c3d").points[20:23, knee]).all()
    never = points.copy()
    never[:, knee] = 0
    text = complains(DataError, read_c3d, c3d(tmp_path / "never.c3d", never))
    assert "marker 'RKNE' of" in text and "is not seen in any of the frames" in text


@pytest.mark.parametrize(
    "extra",
    [
        b"\x01\x01AX" + b"\x02\xff" + b"\xff" * 255,  # text of 255 dimensions
        b"\x01\x01A\x04\x01\xff\x07" + b"\xff" * 7,
        b"\x01\x01A\x00\x00\x02\x07" + b"\xff" * 7,
        b"".join(b"\x01\x01A\x05\x00\xff\x01\xff" for _ in range(60)),  # each reaches over the others
    ],
)
def test_parameters_that_claim_more_than_there_is(extra, tmp_path):
    path = c3d(tmp_path / "a.c3d", extra=extra)
    start = time.thread_time()
    try:
        assert parse_c3d(path).points.shape == (30, len(LABELS), 3)
    except DataError as error:
        assert "C3D parameters" in str(error)
    assert time.thread_time() - start < 1


@pytest.mark.filterwarnings("ignore:.*markers on the skin.*")
def test_the_faulty_c3d_files():
    base, analogue = (read_c3d(FAULTS / f"{name}.c3d") for name in ("data_start_0", "analog_word"))
    np.testing.assert_array_equal(base.positions, analogue.positions)
    assert len(base) == 20 and np.ptp(base.positions, axis=0).max() == 0
    np.testing.assert_allclose(base.positions[0, J["LKnee"]], [0.13, 0, 0.5], atol=1e-6)
    bridged = read_c3d(FAULTS / "zero_marker.c3d").positions
    assert np.linalg.norm(np.diff(bridged, axis=0), axis=-1).max() < 0.15
    seen = parse_c3d(FAULTS / "zero_markers_residual.c3d").points
    assert np.isnan(seen).any() and not (seen == 0).all(-1).any()
    start = time.thread_time()
    complains(DataError, parse_c3d, FAULTS / "c3d_char_dims.c3d")
    for name in ("hugeint.bvh", "frametime.bvh"):
        complains(DataError, read_bvh, FAULTS / name)
    assert time.thread_time() - start < 1
