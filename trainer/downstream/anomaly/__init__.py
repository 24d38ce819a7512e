"""Weakly supervised anomaly detection: videos are labelled, frames are not; when does something happen?"""
