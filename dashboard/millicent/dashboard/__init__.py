"""millicent.dashboard"""
