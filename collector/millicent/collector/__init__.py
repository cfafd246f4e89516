"""millicent.collector"""
