"""Reinforcement learning: what is asked, how answers are rewarded, what a policy learns from them."""
