//! The annotations that change what the runtime does. Whoever reads one takes its name from here, so that the features
//! document has all of them.

macro_rules! annotations {
    ($($(#[$about:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$about])* pub(crate) const $name: &str = $text;)*
        /// One that ends with a dot is a prefix.
        pub(crate) const ALL: &[&str] = &[$($name),*];
    };
}

annotations! {
    /// Of a property of the container's systemd scope.
    SYSTEMD_PROPERTY = "org.systemd.property.";
    /// The file of an operator's settings for CRIU, or (empty) none.
    CRIU_CONFIG = "org.criu.config";
    /// The shim that a container shares with others.
    GROUP = "io.containerd.runc.v2.group";
    /// The pod of a container, and so its shim.
    SANDBOX_ID = "io.kubernetes.cri.sandbox-id";
    /// Whoever sets it has named the pod's namespaces.
    CONTAINER_TYPE = "io.kubernetes.cri.container-type";
}
