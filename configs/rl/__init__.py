"""Reinforcement learning, and the reward models that it needs."""
