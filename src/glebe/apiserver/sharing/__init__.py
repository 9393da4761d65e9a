"""The loop's time: work in pieces, the clusters in turn, and courtesy to those who ask for little.

It knows neither requests nor stores, so that whoever has much to do (lists, watches, commits, handshakes) can share.
"""
