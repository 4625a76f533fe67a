"""PyTorch forms of the terms: TermInput -> (value, gradient of all channels [B, T, J, 3] or of depth [B, T, J])."""

from . import anatomy, limbs, motion, position, ranking

__all__ = ["TERM_FUNCTIONS"]

TERM_FUNCTIONS = {
    function.__name__: function
    for function in (
        position.mpjpe,
        position.weighted_mpjpe,
        position.n_mpjpe,
        motion.velocity,
        motion.temporal_consistency,
        ranking.depth_ranking_joints,
        ranking.depth_ranking_frames,
        anatomy.bone_symmetry,
        anatomy.illegal_angle,
        anatomy.bone_ratio,
        limbs.limb_length,
        limbs.limb_variance,
        limbs.bone_angle,
        limbs.bone_angle_velocity,
    )
}
