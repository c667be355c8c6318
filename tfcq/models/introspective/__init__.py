"""IntroVAE (Huang et al. 2018) and Soft-IntroVAE (Daniel and Tamar 2021): the encoder is the discriminator."""
