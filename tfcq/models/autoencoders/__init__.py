"""GLF (Xiao et al. 2019) and the auto-encoders that the paper compares it with."""
