"""What a user could take instead of our kernels: libraries that run recurrent layers on a CPU."""
