"""Sites learn together and scans stay where they are: our training in Flower's federation.

Everything between the sites is Flower's (https://flower.ai): the processes SuperLink and SuperNode,
strategies, secure aggregation, differential privacy, TLS and the authentication of nodes. What is
here is what a site does in a round (`site`), the two apps that Flower runs (`client_app`,
`server_app`), and what is kept of each round (`rounds`). Flower is imported where it is used, and
only in this folder.

>>> from BrainLandmarksTrainLib.federation.app_folder import write_app
>>> write_app(federation_of("brain88", FederationConfig(rounds=20), steps=50), Path("app"))
"""
