"""CQF (Shmelkov et al. 2018; Lucas et al. 2019), and RealNVP and Flow-GAN, which the papers compare it with."""
