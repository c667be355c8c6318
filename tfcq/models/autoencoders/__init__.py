"""GLF (Xiao et al. 2019) and the auto-encoders that it is compared with."""
