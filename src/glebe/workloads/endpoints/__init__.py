"""What stands behind a Service: EndpointSlices, the older Endpoints, and slices mirrored from hand-made Endpoints.

Pure: ``backends`` (what a pod gives to a Service), ``packing`` (into slices), ``subsets`` (into Endpoints),
``mirrored`` (Endpoints into slices). ``slices``, ``legacy`` and ``mirroring`` observe and write.
"""
