"""CQF (Shmelkov et al. 2018; Lucas et al. 2019), and the RealNVP and Flow-GAN that it is compared with."""
