"""srVAE and the VAE with a bijective prior (Gatopoulos et al. 2020)."""
