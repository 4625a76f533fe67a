"""Tables from the names that motion-capture files use to the 17 joints of Human3.6M.

A joint is a point's name or several, whose mean is taken; `"a|b"` is a, or b where the file has no a. Points are:

- BVH: joints, and `"Head.end"` for the End Site below `Head`.
- ASF/AMC: the *end* of each bone; `"root"` for the root.
- C3D: marker labels.

A prefix before a colon ("mixamorig:", "Subject1:") may be left out. The tables here don't mind capitals, separators
("Left_Up_Leg") and prefixes that nearly all names share ("Bip01 ", "Character1_"). A table of your own takes names as
they are; it is a mapping with all 17 joints, or a YAML or JSON file of one:

    Hip: [LeftUpLeg, RightUpLeg]
    RHip: RightUpLeg
    Head: null
    ...

A joint that is null is not in the file. It gets weight 0: nothing is trained on it or scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["JOINT_MAPS", "JointMap"]


@dataclass(frozen=True)
class JointMap:
    """How the 17 joints are made of a file's points.

    Attributes:
        name: of the table, or the file it was read from.
        joints: Human3.6M joint -> names of the points whose mean it is; none where the joint is not known.
        scale: metres per unit of the files that use these names.
        optional: joints that a file of these names may lack.
        loose: names are found whatever their capitals, separators and common prefix.
    """

    name: str
    joints: Mapping[str, tuple[str, ...]]
    scale: float = 1.0
    optional: tuple[str, ...] = ()
    loose: bool = False


def _sides(template: Mapping[str, str | tuple[str, ...]], left: str, right: str) -> dict[str, tuple[str, ...]]:
    """Joints of both sides: in the template, "*" is the side's letter in ours and `left` or `right` in the file's."""
    out = {}
    for letter, side in (("R", right), ("L", left)):
        for joint, names in template.items():
            names = (names,) if isinstance(names, str) else names
            out[joint.replace("*", letter)] = tuple(name.replace("*", side) for name in names)
    return out


def _map(
    name: str, scale: float, left: str, right: str, sides: Mapping, middle: Mapping, optional: tuple[str, ...] = ()
) -> JointMap:
    middle = {joint: (names,) if isinstance(names, str) else tuple(names) for joint, names in middle.items()}
    return JointMap(name, {**middle, **_sides(sides, left, right)}, scale, optional, loose=True)


_TOP = "Head.end|HeadEnd|HeadTop|HeadTop_End|HeadNub|Head_End_Site"


def _rig(name: str, left: str, right: str, limbs: str, spine: str, neck: str = "Neck", head: str = "Head") -> JointMap:
    """A table of an animation program's names, in centimetres unless the body's height says otherwise.

    The hips' midpoint is the pelvis, the joint at the neck's foot the thorax, the head's own joint the nose. The top of
    the head, below which few rigs have a joint, may be missing.

    Args:
        name: of the table.
        left, right: what "*" stands for in names.
        limbs: names of hip, knee, ankle, shoulder, elbow and wrist.
        spine, neck, head: names of the joints half-way up the back, at the foot of the neck, and of the head.
    """
    parts = dict(zip(("*Hip", "*Knee", "*Foot", "*Shoulder", "*Elbow", "*Wrist"), limbs.split(), strict=True))
    parts = {joint: names.replace("~", " ") for joint, names in parts.items()}
    hips = tuple(parts["*Hip"].replace("*", side) for side in (left, right))
    middle = {"Hip": hips, "Spine": spine, "Thorax": neck, "Neck/Nose": head, "Head": _TOP}
    return _map(name, 0.01, left, right, parts, middle, optional=("Head",))


#: Acclaim lengths are inches times 0.45 in the CMU database.
CMU_SCALE = 0.0254 / 0.45

_LEGS_AND_ARMS = {
    "*Hip": "*UpLeg",
    "*Knee": "*Leg",
    "*Foot": "*Foot",
    "*Shoulder": "*Arm",
    "*Elbow": "*ForeArm",
    "*Wrist": "*Hand",
}
_BETWEEN_HIPS = ("LeftUpLeg", "RightUpLeg")

_MAPS = (
    # B. Hahne's conversion of the CMU database: the joints where those of "cmu-asf" are.
    _map(
        "cmu-bvh", CMU_SCALE, "Left", "Right",
        {**_LEGS_AND_ARMS, "*Wrist": "*FingerBase"},
        {"Hip": _BETWEEN_HIPS, "Spine": "Spine", "Thorax": "Neck", "Neck/Nose": "Head", "Head": "Head.end"},
    ),
    # Written by `write_bvh`.
    _map(
        "h36m", 0.01, "L", "R",
        {f"*{part}": f"*{part}" for part in ("Hip", "Knee", "Foot", "Shoulder", "Elbow", "Wrist")},
        {"Hip": "Hip", "Spine": "Spine", "Thorax": "Thorax", "Neck/Nose": "Neck", "Head": "Head"},
    ),
    # Mixamo, and most rigs that descend from MotionBuilder's names; centimetres.
    _map(
        "mixamo", 0.01, "Left", "Right", _LEGS_AND_ARMS,
        {"Hip": _BETWEEN_HIPS, "Spine": "Spine1|Spine", "Thorax": "Neck", "Neck/Nose": "Head",
         "Head": "HeadTop_End|HeadEnd|Head_End|Head.end"},
        optional=("Head",),
    ),
    # Biovision's own names, and Xsens's, whose spine goes up to Chest4.
    _rig("biovision", "Left", "Right", "*Hip|*UpLeg *Knee|*LowLeg *Ankle|*Foot *UpArm|*Shoulder *LowArm|*Elbow "
         "*Wrist|*Hand", "Chest3|Chest2|Chest"),
    # Poser and DAZ Studio, with Genesis 3 and younger.
    _rig("daz", "l", "r", "*Thigh|*ThighBend *Shin *Foot *Shldr|*ShldrBend *ForeArm|*ForearmBend *Hand",
         "chest|chestLower", "neck|neckLower"),
    # Suffixes _L and _R (Bandai Namco's motion), or VRM's J_Bip_L_ in front.
    _rig("humanoid", "L", "R", "UpperLeg_*|*_UpperLeg LowerLeg_*|*_LowerLeg Foot_*|*_Foot UpperArm_*|*_UpperArm "
         "LowerArm_*|*_LowerArm Hand_*|*_Hand", "Chest|C_Chest|Spine|C_Spine", "Neck|C_Neck", "Head|C_Head"),
    # Unity's names of a humanoid.
    _rig("unity", "Left", "Right", "*UpperLeg *LowerLeg *Foot *UpperArm *LowerArm *Hand", "Chest|Spine"),
    _rig("rokoko", "Left", "Right", "*Thigh *Shin *Foot *Arm *ForeArm *Hand", "Spine2|Spine1|Spine"),
    # Unreal Engine's mannequin.
    _rig("unreal", "l", "r", "thigh_* calf_* foot_* upperarm_* lowerarm_* hand_*", "spine_02|spine_01", "neck_01"),
    # Blender's Rigify.
    _rig("rigify", "L", "R", "thigh.* shin.* foot.* upper_arm.* forearm.* hand.*", "spine.002|chest|spine.001",
         "spine.004|neck", "spine.006|head"),
    # 3ds Max's Biped: "Bip01 L Thigh".
    _rig("biped", "L", "R", "*~Thigh *~Calf *~Foot *~UpperArm *~Forearm *~Hand", "Spine1|Spine"),
    _rig("smpl", "L", "R", "*_Hip *_Knee *_Ankle *_Shoulder *_Elbow *_Wrist", "Spine2|Spine1"),
    # The Acclaim files of the CMU database; spec of the joint choice: the embedded real motion's description.
    _map(
        "cmu-asf", CMU_SCALE, "l", "r",
        {"*Hip": "*hipjoint", "*Knee": "*femur", "*Foot": "*tibia", "*Shoulder": "*clavicle", "*Elbow": "*humerus",
         "*Wrist": "*wrist"},
        {"Hip": ("lhipjoint", "rhipjoint"), "Spine": "lowerback", "Thorax": "thorax", "Neck/Nose": "upperneck",
         "Head": "head"},
    ),
    # Markers lie on the skin: front and back of waist, chest and head are averaged, limbs have one marker per joint.
    _map(
        "cmu-markers", 0.001, "L", "R",
        {"*Hip": ("*FWT", "*BWT"), "*Knee": "*KNE", "*Foot": "*ANK", "*Shoulder": "*SHO", "*Elbow": "*ELB",
         "*Wrist": ("*WRA", "*WRB")},
        {"Hip": ("LFWT", "RFWT", "LBWT", "RBWT"), "Spine": ("T10", "STRN"), "Thorax": ("C7", "CLAV"),
         "Neck/Nose": ("C7", "CLAV", "LFHD", "RFHD", "LBHD", "RBHD"), "Head": ("LFHD", "RFHD", "LBHD", "RBHD")},
    ),
    _map(
        "plug-in-gait", 0.001, "L", "R",
        {"*Hip": ("*ASI", "*PSI|SACR"), "*Knee": "*KNE", "*Foot": "*ANK", "*Shoulder": "*SHO", "*Elbow": "*ELB",
         "*Wrist": ("*WRA", "*WRB")},
        {"Hip": ("LASI", "RASI", "LPSI|SACR", "RPSI|SACR"), "Spine": ("T10", "STRN"), "Thorax": ("C7", "CLAV"),
         "Neck/Nose": ("C7", "CLAV", "LFHD", "RFHD", "LBHD", "RBHD"), "Head": ("LFHD", "RFHD", "LBHD", "RBHD")},
    ),
)  # fmt: skip

#: name -> table; `read_bvh`, `read_amc` and `read_c3d` try those of their format under "auto"
JOINT_MAPS = {entry.name: entry for entry in _MAPS}
